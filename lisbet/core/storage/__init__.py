"""Write, replace and remove files and folders, only those that the program wrote itself."""
