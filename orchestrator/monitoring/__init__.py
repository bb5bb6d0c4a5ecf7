"""What is known of running attempts: state, metrics, and whether the trainer's config is the planned one."""
