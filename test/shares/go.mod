module vmsan/shares-probe

go 1.23
