"""Our losses and gradients beside the reference trainer's, by method and family of models."""
