module vmsan/standin

go 1.24
