"""Pages that people read: one HTML file each, made from the JSON that it holds."""
