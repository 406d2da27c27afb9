"""What methods share on top of torch: networks, batches, measuring, triggers and statistics."""
