"""Model folders, their cards, and the Hugging Face Hub."""
