//! What agents report becomes curves.

use unimse_core::id::{Generation, Step};
use unimse_core::machine::ReportKind;

use crate::agent::{Agent, info};
use crate::{client, coordinator, job, until};

#[tokio::test]
async fn a_validation_is_a_point_of_a_curve_unless_its_generation_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    let (id, _) = client.submit(None, &job("a", 1)).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;

    let evaluated = |step, value| ReportKind::Evaluated {
        step: Step(step),
        metrics: [("valid/mae".to_owned(), value), ("valid/corr".to_owned(), f64::NAN)].into(),
    };
    agent.report(id, Generation(0), 0, evaluated(5, 9.0)).await;
    agent.report(id, assign.generation, 0, evaluated(10, 0.5)).await;
    agent.all_acked().await;
    let points = until("the validation is a curve", || async {
        let points = client.metrics("a", &["valid/".to_owned()], Step(0)).await.unwrap();
        (!points.is_empty()).then_some(points)
    })
    .await;
    // Points are written in the order of the reports, so a stale one would be there, too.
    let seen: Vec<_> = points.iter().map(|point| (point.name.as_str(), point.step, point.value)).collect();
    assert_eq!(seen, [("valid/mae", Step(10), 0.5)]);
    assert_eq!(points[0].generation, assign.generation);
    assert!(client.digests("a").await.unwrap().is_empty(), "a validation consumes no training samples");
}
