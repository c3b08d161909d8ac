// Package markdown writes the tables of the lab's reports.
package markdown

import (
	"fmt"
	"io"
	"strings"
)

// Table begins a table of these columns, the first of them to the left and the others to the right.
func Table(w io.Writer, title string, columns ...string) {
	fmt.Fprintf(w, "\n%s\n\n", title)
	Row(w, columns...)
	cells := []string{"---"}
	for range columns[1:] {
		cells = append(cells, "--:")
	}
	Row(w, cells...)
}

// Row writes one row of a table.
func Row(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

// Num is a number with so many digits after the point.
func Num(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) }
