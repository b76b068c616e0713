//! Accept, defer or refuse: one verdict per stage.
