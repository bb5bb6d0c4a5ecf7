"""axolotl 0.19."""
