"""Find the files of a dataset and check them before a library reads them."""
