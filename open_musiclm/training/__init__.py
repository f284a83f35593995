"""Training: one loop for every trainer, the trainers of stages, tokenizers and backbones."""
