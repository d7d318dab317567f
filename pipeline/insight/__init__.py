"""What people want to know: questions and decisions that pages, the command line and other programs share, as plain values."""
