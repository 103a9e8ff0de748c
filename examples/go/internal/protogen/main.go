// Protogen generates gen/logmillv1 from the repository's proto files. It compiles them itself and runs the two plugins
// that go.mod names: protoc is nothing that Go can install, and to build buf takes minutes.
package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	module   = "logmill.example"
	protoDir = "../../proto"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("protogen: ")
	names, err := filepath.Glob(protoDir + "/logmill/v1/*.proto")
	check(err)
	parameters := []string{"module=" + module}
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], protoDir+"/")
		// The files are not Go's alone, and have no go_package.
		parameters = append(parameters, "M"+names[i]+"="+module+"/gen/logmillv1")
	}
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{protoDir}},
		SourceInfoMode: protocompile.SourceInfoStandard, // comments become Go's
	}
	files, err := compiler.Compile(context.Background(), names...)
	check(err)

	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String(strings.Join(parameters, ",")),
	}
	isAdded := map[string]bool{}
	for _, file := range files {
		add(request, isAdded, file)
	}
	// Otherwise what was made of a file that is gone would be built with the rest.
	check(os.RemoveAll("gen"))
	generate("protoc-gen-go", request)
	generate("protoc-gen-go-grpc", request)
}

// add adds a file behind those that it imports.
func add(request *pluginpb.CodeGeneratorRequest, isAdded map[string]bool, file protoreflect.FileDescriptor) {
	if isAdded[file.Path()] {
		return
	}
	isAdded[file.Path()] = true
	for i := range file.Imports().Len() {
		add(request, isAdded, file.Imports().Get(i).FileDescriptor)
	}
	request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(file))
}

// generate runs a plugin and writes the files that it answers.
func generate(plugin string, request *pluginpb.CodeGeneratorRequest) {
	input, err := proto.Marshal(request)
	check(err)
	command := exec.Command("go", "tool", plugin)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	check(err)
	response := &pluginpb.CodeGeneratorResponse{}
	check(proto.Unmarshal(output, response))
	if response.Error != nil {
		log.Fatalf("%s: %s", plugin, *response.Error)
	}
	for _, file := range response.File {
		check(os.MkdirAll(filepath.Dir(file.GetName()), 0o755))
		check(os.WriteFile(file.GetName(), []byte(file.GetContent()), 0o644))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
