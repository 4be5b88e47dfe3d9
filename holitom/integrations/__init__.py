"""holitom inside other programs: each is imported only when that program asks for it."""
