"""How much memory a training takes of each device, part by part. Pure arithmetic: nothing is imported of any trainer."""
