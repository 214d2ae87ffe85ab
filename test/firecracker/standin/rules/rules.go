// Package rules says which requests Firecracker accepts: rules.json is our own table of the
// facts of the vendor's OpenAPI description (releases 1.10 to 1.16), also used by the tests of
// the driver.
package rules

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
)

//go:embed rules.json
var table []byte

// Field is what is known of one member of a body.
type Field struct {
	Type     string           `json:"type"`
	Required bool             `json:"required"`
	Enum     []string         `json:"enum"`
	Min      *float64         `json:"min"`
	Max      *float64         `json:"max"`
	Fields   map[string]Field `json:"fields"`
	Items    *Field           `json:"items"`
}

// Rule is what is known of one request.
type Rule struct {
	// Phase in which it is allowed: pre, post or any.
	Phase string `json:"phase"`
	// ID is the member that must equal the last part of the path.
	ID string `json:"id"`
	// Open bodies are not looked at.
	Open   bool             `json:"open"`
	Fields map[string]Field `json:"fields"`
}

// All rules by "METHOD /path", with {id} for a resource's name.
var All map[string]Rule

func init() {
	if err := json.Unmarshal(table, &All); err != nil {
		panic(err)
	}
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// Find gives the rule of a request and the resource's name in its path.
func Find(method, path string) (rule Rule, id string, known bool, fault string) {
	if r, ok := All[method+" "+path]; ok {
		return r, "", true, ""
	}
	i := strings.LastIndex(path, "/")
	r, ok := All[method+" "+path[:i]+"/{id}"]
	if !ok {
		// A collection without a name.
		if r, ok = All[method+" "+path+"/{id}"]; ok {
			return r, "", true, "The ID cannot be empty."
		}
		return Rule{}, "", false, ""
	}
	id = path[i+1:]
	if id == "" {
		return r, "", true, "The ID cannot be empty."
	}
	if !idPattern.MatchString(id) {
		return r, id, true, "API Resource IDs can only contain alphanumeric characters and underscores."
	}
	return r, id, true, ""
}

const prefix = "An error occurred when deserializing the json body of a request: "

// Check says what is wrong with a body, "" when nothing is.
func (r Rule) Check(body map[string]any, id string) string {
	if r.Open {
		return ""
	}
	if fault := checkFields(body, r.Fields); fault != "" {
		return prefix + fault + "."
	}
	if r.ID != "" && body[r.ID] != id {
		return "The id from the path [" + id + "] does not match the id from the body [" + fmt.Sprint(body[r.ID]) + "]!"
	}
	return ""
}

func checkFields(body map[string]any, fields map[string]Field) string {
	for name, value := range body {
		field, ok := fields[name]
		if !ok {
			return "unknown field `" + name + "`"
		}
		if value == nil && !field.Required {
			continue
		}
		if fault := field.check(name, value); fault != "" {
			return fault
		}
	}
	for name, field := range fields {
		if _, ok := body[name]; field.Required && !ok {
			return "missing field `" + name + "`"
		}
	}
	return ""
}

func (f Field) check(name string, value any) string {
	bad := "invalid type for `" + name + "`"
	switch f.Type {
	case "boolean":
		if _, ok := value.(bool); !ok {
			return bad
		}
	case "string":
		text, ok := value.(string)
		if !ok {
			return bad
		}
		for _, allowed := range f.Enum {
			if text == allowed {
				return ""
			}
		}
		if f.Enum != nil {
			return "unknown variant `" + text + "`"
		}
	case "integer":
		number, ok := value.(float64)
		if !ok || number != math.Trunc(number) {
			return bad
		}
		if f.Min != nil && number < *f.Min || f.Max != nil && number > *f.Max {
			return "invalid value for `" + name + "`"
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			return bad
		}
		for _, item := range list {
			if f.Items == nil {
				continue
			}
			if fault := f.Items.check(name, item); fault != "" {
				return fault
			}
		}
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			return bad
		}
		return checkFields(object, f.Fields)
	}
	return ""
}
