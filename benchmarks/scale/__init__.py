"""bre on many images, on many classes, and on several processes or machines."""
