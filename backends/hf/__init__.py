"""What trainers over Hugging Face's Trainer share: rows in the names of transformers, PEFT and TRL, steps, and how metrics are read."""
