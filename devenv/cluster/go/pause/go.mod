module devenv/pause

go 1.26.0
