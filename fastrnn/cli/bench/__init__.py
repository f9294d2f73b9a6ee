"""``fastrnn bench``: our layers beside other libraries', on the machine it runs on."""
