"""Where tensors come from: a folder of foreign files, read lazily, under canonical names."""
