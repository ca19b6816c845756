"""Weight-free encoders in four roles: quality, content, scene and keypoint statistics of published definitions."""
