"""The hardware simulator: real drivers talk to it, it borrows no code from what it tests."""
