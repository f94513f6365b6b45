"""What every floor may use: errors, ids, clock, settings, the channel's messages; nothing of the product's logic."""
