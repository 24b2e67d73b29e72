"""The key-holder of a consortium that adds up under encryption: a process of its own, at another house."""
