"""Networks: generators, discriminators and encoders, each a module that knows nothing of training."""
