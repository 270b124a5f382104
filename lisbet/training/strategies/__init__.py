"""What one device, DDP, DeepSpeed and FSDP do differently."""
