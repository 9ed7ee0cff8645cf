// reference turns a CRD on stdin into a Markdown table of its fields on stdout.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

type crd struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Schema struct{ OpenAPIV3Schema schema }
		}
	}
}

type schema struct {
	Type                 string
	Format               string
	Description          string
	Default              any
	Enum                 []any
	Required             []string
	Properties           map[string]schema
	Items                *schema
	AdditionalProperties any
	IntOrString          bool `json:"x-kubernetes-int-or-string"`
}

// Fields whose own fields are those of a Pod: Kubernetes documents them.
var asInPod = map[string]bool{"affinity": true, "tolerations": true, "resources": true}

func main() {
	log.SetFlags(0)
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	var resource crd
	if err := yaml.Unmarshal(input, &resource); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("# Reference\n\n<!-- Generated from crds/ by `make generate`. Do not edit. -->\n\n")
	fmt.Printf("The same as `kubectl explain %s --recursive`. **Bold** fields must be given. `[]` is a list.\n",
		strings.ToLower(resource.Spec.Names.Kind))
	for _, version := range resource.Spec.Versions {
		root := version.Schema.OpenAPIV3Schema
		fmt.Printf("\n## %s, %s/%s\n", resource.Spec.Names.Kind, resource.Spec.Group, version.Name)
		for _, part := range []string{"spec", "status"} {
			fmt.Printf("\n### %s\n\n%s\n\n", part, sentence(root.Properties[part].Description))
			fmt.Print("| Field | Type | |\n|---|---|---|\n")
			rows("", root.Properties[part])
		}
	}
}

// rows prints the fields of an object, each followed by its own.
func rows(prefix string, object schema) {
	required := map[string]bool{}
	for _, name := range object.Required {
		required[name] = true
	}
	names := make([]string, 0, len(object.Properties))
	for name := range object.Properties {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		field := object.Properties[name]
		label := "`" + prefix + name + "`"
		if required[name] {
			label = "**" + label + "**"
		}
		fmt.Printf("| %s | %s | %s |\n", label, kind(field), text(field))
		if asInPod[name] {
			continue
		}
		if field.Items != nil {
			rows(prefix+name+"[].", *field.Items)
		}
		rows(prefix+name+".", field)
	}
}

func kind(field schema) string {
	switch {
	case field.IntOrString:
		return "integer or string"
	case field.Items != nil:
		return "list of " + kind(*field.Items)
	case field.AdditionalProperties != nil && field.AdditionalProperties != false:
		return "map"
	case field.Format == "date-time":
		return "time"
	}
	return field.Type
}

func text(field schema) string {
	result := sentence(field.Description)
	if len(field.Enum) > 0 {
		var values []string
		for _, value := range field.Enum {
			if value != nil {
				values = append(values, fmt.Sprintf("`%v`", value))
			}
		}
		result += " One of " + strings.Join(values, ", ") + "."
	}
	return result
}

// sentence is a description on one line that no table cell breaks.
func sentence(description string) string {
	return strings.NewReplacer("\n", " ", "|", `\|`, "<", "&lt;").Replace(description)
}
