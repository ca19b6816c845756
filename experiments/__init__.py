"""Not installed: notebooks, benchmarks, and the making of the student that ships."""
