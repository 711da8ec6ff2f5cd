"""What developers run: generators of frozen files and the demonstration. Not shipped."""
