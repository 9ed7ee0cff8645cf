// schemas writes JSON schemas for kubeconform: of Kubernetes' own kinds from its OpenAPI document, and of a CRD.
//
//	schemas SWAGGER_JSON CRD_YAML DIRECTORY
//
// Each file is DIRECTORY/KIND-GROUP-VERSION.json, and needs no other. Unknown fields are refused.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

const definitions = "#/definitions/"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: schemas SWAGGER_JSON CRD_YAML DIRECTORY")
	}
	kubernetes(read(os.Args[1]), os.Args[3])
	custom(read(os.Args[2]), os.Args[3])
}

func kubernetes(swagger object, directory string) {
	all := swagger["definitions"].(object)
	for name, definition := range all {
		tighten(definition)
		if strings.HasSuffix(name, "util.intstr.IntOrString") || strings.HasSuffix(name, "api.resource.Quantity") {
			all[name] = object{"type": []string{"string", "integer", "number"}}
		}
	}
	for name, definition := range all {
		kinds, _ := definition.(object)["x-kubernetes-group-version-kind"].([]any)
		// Lists and options belong to many groups; a manifest holds what belongs to one.
		if len(kinds) != 1 {
			continue
		}
		needed := object{}
		collect(name, all, needed)
		kind := kinds[0].(object)
		write(directory, kind["kind"], kind["group"], kind["version"],
			object{"$ref": definitions + name, "definitions": needed})
	}
}

// collect adds to needed the definition of that name and those that it refers to.
func collect(name string, all, needed object) {
	if _, done := needed[name]; done {
		return
	}
	needed[name] = all[name]
	walk(all[name], func(schema object) {
		if reference, ok := schema["$ref"].(string); ok {
			collect(strings.TrimPrefix(reference, definitions), all, needed)
		}
	})
}

func custom(crd object, directory string) {
	spec := crd["spec"].(object)
	for _, version := range spec["versions"].([]any) {
		version := version.(object)
		schema := version["schema"].(object)["openAPIV3Schema"].(object)
		properties := schema["properties"].(object)
		properties["apiVersion"] = object{"type": "string"}
		properties["kind"] = object{"type": "string"}
		properties["metadata"] = object{"type": "object"}
		tighten(schema)
		properties["metadata"] = object{"type": "object"}
		write(directory, spec["names"].(object)["kind"], spec["group"], version["name"], schema)
	}
}

// tighten refuses unknown fields wherever the known ones are listed.
func tighten(schema any) {
	walk(schema, func(schema object) {
		if schema["x-kubernetes-int-or-string"] == true {
			schema["type"] = []string{"string", "integer"}
		}
		_, listed := schema["properties"]
		_, open := schema["additionalProperties"]
		if listed && !open && schema["x-kubernetes-preserve-unknown-fields"] != true {
			schema["additionalProperties"] = false
		}
	})
}

func walk(value any, visit func(object)) {
	switch value := value.(type) {
	case object:
		visit(value)
		for _, inner := range value {
			walk(inner, visit)
		}
	case []any:
		for _, inner := range value {
			walk(inner, visit)
		}
	}
}

func read(path string) object {
	bytes, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var value object
	if err := yaml.Unmarshal(bytes, &value); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	return value
}

func write(directory string, kind, group, version any, schema object) {
	bytes, err := json.Marshal(schema)
	if err != nil {
		log.Fatal(err)
	}
	// kubeconform's convention: of the group the first word, and none for the core group.
	group, _, _ = strings.Cut(group.(string), ".")
	name := strings.ToLower(kind.(string)+"-"+group.(string)+"-"+version.(string)) + ".json"
	name = strings.Replace(name, "--", "-", 1)
	if err := os.WriteFile(filepath.Join(directory, name), bytes, 0o644); err != nil {
		log.Fatal(err)
	}
}
