"""What people ask and decide, the same for pages, commands and the API: plain values in, plain values out."""
