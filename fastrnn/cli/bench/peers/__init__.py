"""Other libraries as candidates, a module for each; `registry.LIBRARIES` names them."""
