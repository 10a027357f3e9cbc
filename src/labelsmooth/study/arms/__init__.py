"""What is compared: the table of methods, and how an arm is written, read and built."""
