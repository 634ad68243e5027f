"""The templates that come with phase21, one TOML file each, and the code that reads and fills them."""
