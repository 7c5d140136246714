// Command simulate plays the kubelet of nodes that do not exist, with kwok's controllers: its pods become Ready without
// a process, or fail as stages.yaml says. Only nodes with the annotation of kwok are played.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	nodes "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	pods "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	"sigs.k8s.io/kwok/pkg/utils/client"
)

const (
	managed     = "kwok.x-k8s.io/node=fake"
	readyAfter  = `.metadata.annotations["devenv.local/ready-after"]`
	parallel    = 8
	leaseLength = 120 // seconds; renewed after a quarter of it
)

//go:embed stages.yaml
var ownStages string

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the cluster")
	addresses := flag.String("pod-addresses", "", "the block that simulated pods have their addresses from")
	flag.Parse()
	ctx := context.Background()
	config, err := settings(*kubeconfig)
	if err != nil {
		return err
	}
	config.CIDR = *addresses
	controller, err := controllers.NewController(config)
	if err != nil {
		return err
	}
	if err := controller.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func settings(kubeconfig string) (controllers.Config, error) {
	var none controllers.Config
	clients, err := client.NewClientset("", kubeconfig)
	if err != nil {
		return none, err
	}
	config, err := clients.ToRESTConfig()
	if err != nil {
		return none, err
	}
	dynamic, err := clients.ToDynamicClient()
	if err != nil {
		return none, err
	}
	mapper, err := clients.ToRESTMapper()
	if err != nil {
		return none, err
	}
	plain, err := rest.RESTClientFor(config)
	if err != nil {
		return none, err
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return none, err
	}
	identity, err := controllers.Identity()
	if err != nil {
		return none, err
	}
	stages, err := allStages()
	return controllers.Config{
		Clock: clock.RealClock{}, ID: identity, LocalStages: stages,
		DynamicClient: dynamic, RESTClient: plain, RESTMapper: mapper, TypedClient: typed,
		ImpersonatingDynamicClient:        clients.ToImpersonatingDynamicClient(),
		ImpersonatingTypedClient:          clients.ToImpersonatingTypedClient(),
		ManageNodesWithAnnotationSelector: managed,
		PodPlayStageParallelism:           parallel, NodePlayStageParallelism: parallel,
		NodeLeaseParallelism: parallel, PodsOnNodeSyncParallelism: parallel,
		NodeLeaseDurationSeconds: leaseLength,
	}, err
}

type stages = map[internalversion.StageResourceRef][]*internalversion.Stage

// allStages are kwok's own for what goes well, and ours for what does not.
func allStages() (stages, error) {
	found := stages{}
	texts := []string{nodes.DefaultNodeInit, pods.DefaultPodReady, pods.DefaultPodComplete, pods.DefaultPodDelete}
	for _, own := range bytes.Split([]byte(ownStages), []byte("\n---\n")) {
		texts = append(texts, string(own))
	}
	for _, text := range texts {
		var stage v1alpha1.Stage
		if err := yaml.UnmarshalStrict([]byte(text), &stage); err != nil {
			return nil, err
		}
		if text == pods.DefaultPodReady {
			stage.Spec.Delay = &v1alpha1.StageDelay{
				DurationFrom: &v1alpha1.ExpressionFrom{JQ: &v1alpha1.ExpressionJQ{Expression: readyAfter}},
			}
		}
		v1alpha1.SetObjectDefaults_Stage(&stage)
		parsed, err := internalversion.ConvertToInternalStage(&stage)
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", stage.Name, err)
		}
		found[parsed.Spec.ResourceRef] = append(found[parsed.Spec.ResourceRef], parsed)
	}
	return found, nil
}
