package system_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// What the suite reads of a service's OpenAPI document.
type (
	document struct {
		Paths      map[string]map[string]*operation `json:"paths"`
		Components struct {
			Schemas map[string]*schema `json:"schemas"`
		} `json:"components"`
	}
	operation struct {
		ID          string              `json:"operationId"`
		Parameters  []parameter         `json:"parameters"`
		Responses   map[string]response `json:"responses"`
		RequestBody struct {
			Content map[string]struct {
				Schema *schema `json:"schema"`
			} `json:"content"`
		} `json:"requestBody"`

		doc                   *document
		service, method, path string
	}
	response struct {
		Content map[string]json.RawMessage `json:"content"`
	}
	parameter struct {
		Name     string  `json:"name"`
		In       string  `json:"in"`
		Required bool    `json:"required"`
		Schema   *schema `json:"schema"`
		Example  any     `json:"example"`
	}
	schema struct {
		Ref        string             `json:"$ref"`
		Type       any                `json:"type"` // a name, or names of which one is null
		Format     string             `json:"format"`
		Enum       []any              `json:"enum"`
		Examples   []any              `json:"examples"`
		MinLength  *int               `json:"minLength"`
		MaxLength  *int               `json:"maxLength"`
		MinItems   *int               `json:"minItems"`
		MaxItems   *int               `json:"maxItems"`
		Minimum    *float64           `json:"minimum"`
		Maximum    *float64           `json:"maximum"`
		Properties map[string]*schema `json:"properties"`
		Required   []string           `json:"required"`
		Items      *schema            `json:"items"`
	}
)

func (d *document) operations(service string) []*operation {
	var all []*operation
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			op.doc, op.service, op.method, op.path = d, service, strings.ToUpper(method), path
			all = append(all, op)
		}
	}
	return all
}

func (op *operation) String() string { return op.method + " " + op.path + " of " + op.service }

// body is the schema of the operation's body, nil if it takes none.
func (op *operation) body() *schema { return op.RequestBody.Content["application/json"].Schema }

func (d *document) resolve(s *schema) *schema {
	for s.Ref != "" {
		s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	return s
}

func (s *schema) is(name string) bool {
	switch t := s.Type.(type) {
	case string:
		return t == name
	case []any:
		return slices.Contains(t, any(name))
	}
	return false
}

// someID is the id of what the suite looks for.
var someID = uuid.Must(uuid.NewV7()).String()

// example is a value that the schema takes.
func (d *document) example(s *schema) any {
	s = d.resolve(s)
	switch {
	case s.Format == "uuid":
		return someID
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Format == "date-time":
		return "2026-11-25T00:00:00Z"
	case s.is("boolean"):
		return false
	case s.is("integer"), s.is("number"):
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 1
	case s.is("array"):
		return []any{d.example(s.Items)}
	case s.is("object"):
		return d.edited(s, "body", edit{})
	default:
		return "example"
	}
}

// edit is what is done to one place of an otherwise good body.
type edit struct {
	place  string                   // such as "body.items[0].quantity"; "": nothing is edited
	member func(name string) string // of a good value: writes the member of the object anew, or leaves it out by ""
}

const hole = "\x00" // stands where an edited member is to be: not in what JSON encodes

// edited is a good body with one edit: a raw value with holes where the edit's member belongs.
func (d *document) edited(s *schema, place string, e edit) any {
	s = d.resolve(s)
	switch {
	case s.is("object"):
		object := map[string]any{}
		for name, property := range s.Properties {
			inner := place + "." + name
			switch {
			case inner == e.place:
				object[name] = hole
			case e.place != "" && strings.HasPrefix(e.place, inner+".") || strings.HasPrefix(e.place, inner+"["):
				object[name] = d.edited(property, inner, e)
			case slices.Contains(s.Required, name):
				object[name] = d.example(property)
			}
		}
		return object
	case s.is("array"):
		if inner := place + "[0]"; strings.HasPrefix(e.place, inner) {
			return []any{d.edited(s.Items, inner, e)}
		}
	}
	return d.example(s)
}

// write is the text of a good body with one edit.
func (d *document) write(s *schema, e edit) string {
	text, err := json.Marshal(d.edited(s, "body", e))
	if err != nil {
		panic(err)
	}
	if e.place == "" {
		return string(text)
	}
	name := e.place[strings.LastIndexByte(e.place, '.')+1:]
	member := strconv.Quote(name) + `:"\u0000"`
	return strings.Replace(string(text), member, e.member(name), 1)
}

// fields lists the places in a body, the optional ones too.
func (d *document) fields(s *schema, place string, visit func(place string, s *schema, required bool)) {
	s = d.resolve(s)
	switch {
	case s.is("object"):
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			visit(place+"."+name, d.resolve(s.Properties[name]), slices.Contains(s.Required, name))
			d.fields(s.Properties[name], place+"."+name, visit)
		}
	case s.is("array"):
		d.fields(s.Items, place+"[0]", visit)
	}
}

// url is the operation's path with good values for what it requires, except where values has another.
func (op *operation) url(values map[string]string, query ...string) string {
	path := op.path
	for _, p := range op.Parameters {
		value, other := values[p.Name]
		if !other {
			value = fmt.Sprint(op.doc.example(p.Schema))
		}
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", value)
		case p.In == "query" && p.Required && !other:
			query = append(query, p.Name+"="+value)
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return path
}
