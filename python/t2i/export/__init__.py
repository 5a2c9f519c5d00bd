"""A trained model as one ONNX file, and images from it."""
