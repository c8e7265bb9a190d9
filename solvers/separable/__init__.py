"""One band with variants: levels, menus, selection, blocks, other bounds."""
