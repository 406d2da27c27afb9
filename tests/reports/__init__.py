"""Reports: JSON, HTML, images."""
