"""The dashboard: pages made with NiceGUI that speak only the public API."""
