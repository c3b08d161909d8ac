module github.com/converge-dev/converge/migrations

go 1.26.0
