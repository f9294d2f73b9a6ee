"""The phases of bench/gpu_check.py, and the table made of what they find."""
