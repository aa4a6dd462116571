"""Reading tables, files and folders; putting sequences together; splitting; batches."""
