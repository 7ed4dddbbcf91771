"""What is released: the sdist, the wheel, and what is said to be in them."""
