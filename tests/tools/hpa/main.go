// Command hpa-replay prints what the controller of HorizontalPodAutoscalers of Kubernetes decides. It reads a JSON list
// of recordings from the standard input: the number of pods and the external metric at each sync, 15 s apart. It writes
// the number of pods after each sync, for each recording. The controller is the real one, with the defaults of
// kube-controller-manager; only the API server and the time are simulated.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	scalefake "k8s.io/client-go/scale/fake"
	core "k8s.io/client-go/testing"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// The defaults of kube-controller-manager.
const (
	syncPeriod          = 15 * time.Second
	downscaleWindow     = 5 * time.Minute
	tolerance           = 0.1
	cpuInitialization   = 5 * time.Minute
	initialReadiness    = 30 * time.Second
	namespace, workload = "default", "worker"
)

type recording struct {
	Min    int32 `json:"min"`
	Max    int32 `json:"max"`
	Target int64 `json:"target"`
	// The number of pods and the sum of the metric at each sync.
	Syncs [][2]int64 `json:"syncs"`
}

// replay is the cluster that the controller sees.
type replay struct {
	// External metrics are the only ones that a recording has.
	metrics.MetricsClient
	recording
	lock    sync.Mutex
	next    int
	desired []int64
	done    chan struct{}
}

// get returns the scale at the next sync.
func (r *replay) get(core.Action) (bool, runtime.Object, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.next >= len(r.Syncs) {
		if r.next == len(r.Syncs) {
			close(r.done)
		}
		r.next++
		return true, nil, fmt.Errorf("the recording has ended")
	}
	pods := r.Syncs[r.next][0]
	r.desired = append(r.desired, pods)
	r.next++
	return true, &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: workload},
		Spec:       autoscalingv1.ScaleSpec{Replicas: int32(pods)},
		Status:     autoscalingv1.ScaleStatus{Replicas: int32(pods), Selector: "app=worker"},
	}, nil
}

func (r *replay) update(action core.Action) (bool, runtime.Object, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	scale := action.(core.UpdateAction).GetObject().(*autoscalingv1.Scale)
	r.desired[len(r.desired)-1] = int64(scale.Spec.Replicas)
	return true, scale, nil
}

func (r *replay) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return []int64{r.Syncs[r.next-1][1] * 1000}, time.Now(), nil
}

func (r *replay) autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	object := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: workload},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", APIVersion: "apps/v1", Name: workload},
			MinReplicas:    &r.Min,
			MaxReplicas:    r.Max,
			// Empty rules become the documented ones.
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{},
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ExternalMetricSourceType,
				External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "queue"},
					Target: autoscalingv2.MetricTarget{
						Type:         autoscalingv2.AverageValueMetricType,
						AverageValue: resource.NewQuantity(r.Target, resource.DecimalSI),
					},
				},
			}},
		},
	}
	defaults.SetDefaults_HorizontalPodAutoscaler(object)
	return object
}

// run lets the controller sync until the recording ends, in simulated time.
func (r *replay) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewClientset(r.autoscaler())
	scales := &scalefake.FakeScaleClient{}
	scales.AddReactor("get", "deployments", r.get)
	scales.AddReactor("update", "deployments", r.update)
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{appsv1.SchemeGroupVersion})
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	factory := informers.NewSharedInformerFactory(client, 0)
	controller := podautoscaler.NewHorizontalController(
		ctx, client.CoreV1(), scales, client.AutoscalingV2(), mapper, r,
		factory.Autoscaling().V2().HorizontalPodAutoscalers(), factory.Core().V1().Pods(),
		syncPeriod, downscaleWindow, tolerance, cpuInitialization, initialReadiness,
	)
	_, _ = client.CoreV1().Pods(namespace).Create(ctx, &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: workload, Labels: map[string]string{"app": "worker"}},
	}, metav1.CreateOptions{})
	factory.Start(ctx.Done())
	go controller.Run(ctx, 1)
	<-r.done
}

func main() {
	var recordings []recording
	if err := json.NewDecoder(os.Stdin).Decode(&recordings); err != nil {
		fmt.Fprintln(os.Stderr, "error: read the recordings:", err)
		os.Exit(1)
	}
	replays := func(t *testing.T) {
		results := [][]int64{}
		for _, recording := range recordings {
			replay := &replay{recording: recording, done: make(chan struct{})}
			replay.run()
			results = append(results, replay.desired)
		}
		_ = json.NewEncoder(os.Stdout).Encode(results)
		// The broadcaster of events does not end.
		os.Exit(0)
	}
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "replay", F: func(t *testing.T) { synctest.Test(t, replays) }}}, nil, nil)
}
