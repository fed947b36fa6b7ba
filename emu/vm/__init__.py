"""One virtual machine: pmap, shadow and nested tables, exits, event delivery, firmware and loader."""
