"""What guards take out where nobody speaks, and what where somebody does."""
