"""What crosses the wire between a hospital node, the coordinator and a researcher. No I/O."""
